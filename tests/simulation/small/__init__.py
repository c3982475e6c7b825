"""Small worlds: the two halves of a stream, a client of packets and the machine of a packet server's client, each the
real one, over a connection that is none, from one seed; and interrupts wherever the interpreter lets one through.

No kernel socket, no thread, no sleep. An interrupt is a real signal, pending all the time until the n-th place where
CPython looks for one: see `support.strikes.SignalStrike`. The same places are those at which threads change, and so
what another thread does is tried there, too.

==============  ==================================================================================================
module          is
==============  ==================================================================================================
`wires`         a connection that cuts up, delays, takes little at a time, ends and is reset
`secured`       TLS over one: two engines face to face
`streams`       two streams face to face, and what their users call
`formats`       packet formats, with good and bad packets
`clients`       a `PacketClient` over a stream, and what its user calls
`packets`       a `PacketService` with its handler, a loop, workers and users who come in between
`worlds`        all of these of one seed: `run`
==============  ==================================================================================================
"""
