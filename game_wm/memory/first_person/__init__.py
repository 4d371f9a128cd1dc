"""Memory of games that are seen through a camera on a plane: poses, geometry, and what places looked like."""
