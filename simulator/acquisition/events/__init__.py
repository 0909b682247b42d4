"""What is played: RF pulses, gradients, acquisitions in time, and what their gradients add up to; Pulseq files."""
