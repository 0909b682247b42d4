"""What is read: the ways through k-space, the samples of an object along them, and the images made of them."""
