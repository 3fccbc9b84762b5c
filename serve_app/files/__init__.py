"""Files that users upload: where they are kept, what is believed of them, and how they are given back."""
