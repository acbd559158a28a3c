"""What people look at: terminal tables, pictures, and the page that holds both."""
