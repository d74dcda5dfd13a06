"""`pbserv doctor`: facts about this host and its network are gathered, checks look at them, findings say what to do."""
