"""What tests of users share with those of this project."""
