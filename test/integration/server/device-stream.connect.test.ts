/** The same promises on the other way that a device's stream takes: what a device's stream promises, served by the Connect handler. */
import { useDeviceStreams } from "../../support/server.ts";

useDeviceStreams("connect");
await import("./device-stream.test.ts");
