/** The tests of the device's stream, on the other transport: the Connect handler. */
import { useDeviceStreams } from "../../support/server.ts";

useDeviceStreams("connect");
await import("./device-stream.test.ts");
