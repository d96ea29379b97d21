"""What a cluster agrees on, and what follows from it: rules without IO.

commands  what can be asked of the cluster, as it stands in the log
facts     what is so after them: members, tokens, names; the application of Raft's log
voters    which hosts should vote
called    which member a person means
"""
