"""Whole Søckets, the real engine and not a model of it, on machines that are not there: see the page on testing in
docs/explanation.

=============  ====================================================================================
module         is
=============  ====================================================================================
`timeline`     virtual time
`network`      hosts, links, connections, and all that goes wrong with them
`machine`      what the library stands on: a clock, chance, sockets and a thread that is none
`program`      one program on one host: a Søcket and its user, over several lives
`plan`         what is to happen in one world, drawn from a seed, or written down
`talk`         the same of worlds in which more is done than to send and receive
`intruder`     somebody who connects and says what he likes
`elder`        a peer of the dialect of 2019
`world`        makes it happen, and tells the story
`promises`     the invariants: what has to hold all along, and at the end
`shrinking`    less and less of a world that fails, for as long as it still does
=============  ====================================================================================
"""
