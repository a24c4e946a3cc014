"""What is known of runs beside the run itself: the queue that starts them. Nothing here imports a training stack."""
