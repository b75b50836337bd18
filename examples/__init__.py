"""Small applications that show how rqsup is used."""
