"""What several methods share: masks, teachers, memories, losses. A part knows bags, not methods."""
