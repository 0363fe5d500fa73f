"""banger: keeps the development VMs of one Linux host in the state a YAML file asks for."""

__version__ = "0.1.0"
