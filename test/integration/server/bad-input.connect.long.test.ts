/** The tests of bad input, on the other transport of a device's stream: the Connect handler. */
import { useDeviceStreams } from "../../support/server.ts";

useDeviceStreams("connect");
await import("./bad-input.test.ts");
