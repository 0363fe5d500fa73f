"""What the command line may ask for, whoever answers: the daemon in this process, or a controller in another."""
