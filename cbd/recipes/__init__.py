"""What shall be made: frozen dataclasses that name their inputs, shapes, operators, costs. Nothing runs."""
