/**
 * The tests of a client made from the proto alone, on the other transport of a device's stream: the
 * Connect handler.
 */
import { useDeviceStreams } from "../../../support/server.ts";

useDeviceStreams("connect");
// A module of its own: the worker may have run the same tests on the other transport.
const tests: string = "./plain-grpc-client.test.ts?connect";
await import(tests);
