"""The program that outlives its owner.  Standard library only; imports nothing of the other layers."""
