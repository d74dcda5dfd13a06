"""`pbserv probe`: acts as a network boot client on a wire and says what each answer is worth."""
