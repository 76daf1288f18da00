"""How the miniature family is trained: stages that can be stopped, resumed and repeated from a seed."""
