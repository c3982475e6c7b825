// A peer of a Søcket, over WebSocket: for pages, and for whatever else has a global WebSocket, such as Node 22.
//
//     import { Peer } from "./netmsg.js";
//
//     const peer = new Peer("ws://localhost:25000/");
//     peer.onmessage = (bytes) => console.log(new TextDecoder().decode(bytes));
//     peer.send("hello");
//
// It speaks aiomsg's protocol, version 1, in the payloads of binary messages, whose boundaries mean nothing: each frame
// is the length of its envelope (4 bytes, big-endian) and the envelope, whose first byte is its type.

const HELLO = 1, HEARTBEAT = 2, DATA = 3, DATA_REQ = 4, ACK = 5;
const VERSION = 1;
const ID_SIZE = 16; // of an identity, and of a message id
const LONGEST_FIRST = 256; // bytes of an envelope from somebody who has not said HELLO yet
const FIRST_DELAY = 100, LONGEST_DELAY = 2000; // ms between attempts to connect
const REMEMBERED = 10_000; // ids of messages, to know by when one comes again

// The other end has broken the protocol.
class ProtocolError extends Error {}

export class Peer {
  // For you to set. Nothing is called before the constructor has returned and your own code has come to its end.
  onmessage = null; // (bytes: Uint8Array) => a message has come; the bytes are yours
  onconnect = null; // () => the other end has said HELLO: messages go both ways from now on
  ondisconnect = null; // (reason: string) => the connection is gone; another is made unless you have closed

  // 16 random bytes by which others know this peer, however often it connects.
  identity = crypto.getRandomValues(new Uint8Array(ID_SIZE));
  connected = false;
  closed = false;

  #url;
  #options;
  #socket = null;
  #frames;
  #lastSent = 0;
  #lastHeard = 0;
  #bound = FIRST_DELAY; // of the next delay
  #kept = []; // frames to be sent when somebody is there
  #seen = new Set(); // ids, oldest first
  #watch = null; // timers: of beating and of silence,
  #retry = null; // and of the next attempt

  // heartbeat and silence are in milliseconds, maxMessageSize in bytes. Throws what `new WebSocket` throws for a URL
  // that is none, or that this page may not connect to.
  constructor(url, { heartbeat = 5000, silence = 15_000, keep = 10_000, maxMessageSize = 64 * 2 ** 20 } = {}) {
    this.#url = url;
    this.#options = { heartbeat, silence, keep, maxMessageSize };
    this.#connect();
  }

  // Send a message: a string (as UTF-8), an ArrayBuffer or a view of one. While nobody is there it is kept; where
  // `keep` of them are kept already, it is dropped, and false returned.
  send(message) {
    if (this.closed) throw new Error("the peer is closed");
    const bytes = bytesOf(message);
    // It would break every connection that it takes.
    if (bytes.length > this.#options.maxMessageSize) throw new RangeError(`a message of ${bytes.length} bytes`);
    const data = frame(DATA, bytes);
    if (this.connected) this.#write(data);
    else if (this.#kept.length < this.#options.keep) this.#kept.push(data);
    else return false;
    return true;
  }

  // How many bytes of what was sent the browser still holds. There is no bound to it, and nothing waits for it: whoever
  // sends a lot should look at it.
  get bufferedAmount() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  // What the browser holds is still sent; what is kept for want of a connection is not.
  close() {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.#retry);
    this.#kept = [];
    this.#drop("closed");
  }

  #connect() {
    const socket = new WebSocket(this.#url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#write(frame(HELLO, [VERSION], this.identity));
    socket.onmessage = ({ data }) => this.#hear(socket, data);
    socket.onclose = ({ code, reason }) => this.#drop(`closed by the other end: ${code} ${reason}`.trim());
    // In Node 20 nothing else tells that connecting has failed.
    socket.onerror = () => this.#drop("the connection has failed");
    this.#socket = socket;
    this.#frames = new Frames(LONGEST_FIRST);
    this.#lastSent = this.#lastHeard = performance.now();
    const { heartbeat, silence } = this.#options;
    this.#watch = setInterval(() => this.#look(), Math.min(heartbeat, silence) / 5);
  }

  // Give the connection up, in whatever state it is. A WebSocket to somebody who is dead may take minutes to close, so
  // nobody waits for that.
  #drop(reason) {
    const socket = this.#socket;
    if (socket === null) return;
    this.#socket = null;
    clearInterval(this.#watch);
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
    socket.close();
    if (!this.closed) {
      // At random, so that all the pages of a server that was restarted do not come back at once.
      this.#retry = setTimeout(() => this.#connect(), Math.random() * this.#bound);
      this.#bound = Math.min(this.#bound * 2, LONGEST_DELAY);
    }
    if (this.connected) {
      this.connected = false;
      this.#tell(this.ondisconnect, reason);
    }
  }

  // Is it time to beat, or to give up?
  #look() {
    const now = performance.now();
    const { heartbeat, silence } = this.#options;
    if (now - this.#lastHeard >= silence) this.#drop(`nothing was heard for ${silence} ms`);
    else if (this.connected && now - this.#lastSent >= heartbeat) this.#write(frame(HEARTBEAT));
  }

  #write(data) {
    this.#socket.send(data);
    this.#lastSent = performance.now();
  }

  #hear(socket, data) {
    this.#lastHeard = performance.now();
    try {
      if (typeof data === "string") throw new ProtocolError("a text message");
      for (const envelope of this.#frames.push(new Uint8Array(data))) {
        this.#take(envelope[0], envelope.subarray(1));
        if (socket !== this.#socket) return; // a handler has closed it
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#drop(`protocol error: ${error.message}`);
      return;
    }
    // Browsers hold back the timers of pages that nobody looks at, for up to a minute, but not what comes from the
    // network: the heartbeats of the other end keep ours going.
    this.#look();
  }

  #take(type, body) {
    if (!this.connected) {
      if (type !== HELLO || body[0] !== VERSION) throw new ProtocolError("no HELLO of version 1");
      check(HELLO, body.length === 1 + ID_SIZE);
      this.#begin();
    } else if (type === DATA) {
      this.#tell(this.onmessage, body.slice());
    } else if (type === DATA_REQ) {
      check(DATA_REQ, body.length >= ID_SIZE);
      const id = body.subarray(0, ID_SIZE);
      this.#write(frame(ACK, id)); // each time it comes: the last one may have been lost
      if (this.#isNew(id)) this.#tell(this.onmessage, body.slice(ID_SIZE));
    } else if (type === ACK) {
      check(ACK, body.length === ID_SIZE); // and otherwise nothing to us, who send nothing at least once
    } else if (type === HEARTBEAT) {
      check(HEARTBEAT, body.length === 0);
    } else {
      check(type, type !== HELLO); // a second one; whatever else there is, is skipped
    }
  }

  #begin() {
    this.connected = true;
    this.#bound = FIRST_DELAY;
    this.#frames.longest = 1 + ID_SIZE + this.#options.maxMessageSize;
    const kept = this.#kept;
    this.#kept = [];
    for (const data of kept) this.#write(data);
    this.#tell(this.onconnect);
  }

  #isNew(id) {
    const key = String.fromCharCode(...id);
    if (this.#seen.has(key)) return false;
    this.#seen.add(key);
    if (this.#seen.size > REMEMBERED) this.#seen.delete(this.#seen.values().next().value);
    return true;
  }

  // An error in a handler is reported like that of any other handler, and leaves the connection as it is.
  #tell(handler, ...args) {
    try {
      handler?.(...args);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}

// Puts together the envelopes of a stream that comes in pieces, which are joined once for each envelope that becomes
// complete: a long one costs no more than a short one, and no memory before its bytes are there.
class Frames {
  longest;
  #pieces = [];
  #size = 0;
  #wanted = 4; // so many bytes have to be there before it is worth looking

  constructor(longest) {
    this.longest = longest;
  }

  *push(piece) {
    this.#pieces.push(piece);
    this.#size += piece.length;
    while (this.#size >= this.#wanted) {
      const bytes = this.#joined();
      const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
      if (length === 0 || length > this.longest) throw new ProtocolError(`a frame of ${length} bytes`);
      this.#wanted = 4 + length;
      if (bytes.length < this.#wanted) return;
      this.#pieces = [bytes.subarray(this.#wanted)];
      this.#size -= this.#wanted;
      this.#wanted = 4;
      yield bytes.subarray(4, 4 + length);
    }
  }

  #joined() {
    if (this.#pieces.length > 1) this.#pieces = [concatenated(this.#pieces)];
    return this.#pieces[0];
  }
}

function check(type, isRight) {
  if (!isRight) throw new ProtocolError(`a malformed frame of type ${type}`);
}

function frame(type, ...parts) {
  const bytes = concatenated([[0, 0, 0, 0, type], ...parts]);
  new DataView(bytes.buffer).setUint32(0, bytes.length - 4);
  return bytes;
}

function concatenated(parts) {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function bytesOf(message) {
  if (typeof message === "string") return new TextEncoder().encode(message);
  if (message instanceof ArrayBuffer) return new Uint8Array(message);
  if (ArrayBuffer.isView(message)) return new Uint8Array(message.buffer, message.byteOffset, message.byteLength);
  throw new TypeError("a message is a string, an ArrayBuffer or a view of one");
}
