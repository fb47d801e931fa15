"""What dead owners left: the evidence, the verdict, the removal."""
