"""What every room uses: checks, files, images, the command line."""
