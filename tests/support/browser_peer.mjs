// Runs the peer of examples/browser in Node, for tests/test_browser.py: each line that comes is a call, each that is
// printed an event. Arguments: the URL, and the options as JSON.

import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { Peer } from "../../examples/browser/netmsg.js";

const [url, options] = process.argv.slice(2);
const { timeless, ...rest } = JSON.parse(options);
if (timeless) globalThis.setInterval = () => 0; // as if this were a page that nobody looks at
const peer = new Peer(url, rest);
console.log(`identity ${Buffer.from(peer.identity).toString("hex")}`);

peer.onconnect = () => console.log("connected");
peer.ondisconnect = (reason) => console.log(`disconnected: ${reason}`);
peer.onmessage = (bytes) => {
  if (bytes.length > 100) {
    console.log(`received ${bytes.length} bytes, SHA-256 ${createHash("sha256").update(bytes).digest("hex")}`);
  } else {
    const text = new TextDecoder().decode(bytes);
    console.log(`received: ${text}`);
    if (text === "raise") throw new Error("raised by the handler");
    if (text === "close") peer.close();
  }
};

process.on("uncaughtException", (error) => console.log(`reported: ${error.message}`));

const calls = {
  send: (text, times = 1) => console.log(`sent: ${peer.send(text.repeat(times))}`),
  sendBytes: (numbers) => peer.send(new Uint8Array(numbers).buffer),
  close: () => peer.close(),
};
for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(line);
  try {
    calls[name](...args);
  } catch (error) {
    console.log(`thrown: ${error.message}`);
  }
}
process.exit();
