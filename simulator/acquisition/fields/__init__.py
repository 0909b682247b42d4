"""What the scanner's fields are: main field and shim, transmit and receive coils with their noise, faulty gradients."""
