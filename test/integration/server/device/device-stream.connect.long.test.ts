/** The tests of the device's stream, on the other transport: the Connect handler. */
import { useDeviceStreams } from "../../../support/server.ts";

useDeviceStreams("connect");
// A module of its own: the worker may have run the same tests on the other transport.
const tests: string = "./device-stream.test.ts?connect";
await import(tests);
