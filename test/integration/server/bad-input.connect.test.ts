/** The same promises on the other way that a device's stream takes: what a peer may do wrong, served by the Connect handler. */
import { useDeviceStreams } from "../../support/server.ts";

useDeviceStreams("connect");
await import("./bad-input.test.ts");
