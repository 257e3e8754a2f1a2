/** The tests of slow readers, on the other transport of a device's stream: the Connect handler. */
import { useDeviceStreams } from "../../support/server.ts";

useDeviceStreams("connect");
await import("./slow-reader.test.ts");
