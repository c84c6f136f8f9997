"""From the paths a user names to text: which files, their text, and the comments that silence findings."""
