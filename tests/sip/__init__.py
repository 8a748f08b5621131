"""Telephones for the tests and the benchmark: real SIP and RTP, sent by SIPp."""
