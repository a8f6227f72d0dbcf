"""The embedded part of Fashion-MNIST; make.py says how it was made, LICENSE under which terms it may be used."""
