//! One attempt: complete the body, authenticate, sign, send, judge.
