"""The commands of the full install, added to `keywarp` by entry points: engines, server and client meet here."""
