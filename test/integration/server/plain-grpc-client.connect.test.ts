/** The same promises on the other way that a device's stream takes: a client made from the proto alone, served by the Connect handler. */
import { useDeviceStreams } from "../../support/server.ts";

useDeviceStreams("connect");
await import("./plain-grpc-client.test.ts");
