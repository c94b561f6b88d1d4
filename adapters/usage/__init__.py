"""What a call uses: as it is reported, as it is estimated, and what of it is charged."""
