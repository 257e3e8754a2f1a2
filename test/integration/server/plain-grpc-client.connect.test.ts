/**
 * The tests of a client made from the proto alone, on the other transport of a device's stream: the
 * Connect handler.
 */
import { useDeviceStreams } from "../../support/server.ts";

useDeviceStreams("connect");
await import("./plain-grpc-client.test.ts");
