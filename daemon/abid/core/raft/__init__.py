"""Raft without IO: messages and ticks in, messages and what is to be stored out.

Written from "In Search of an Understandable Consensus Algorithm" (Ongaro and Ousterhout, 2014; "the paper") and
"Consensus: Bridging Theory and Practice" (Ongaro, 2014; "the thesis"). Each rule names its section.
"""
