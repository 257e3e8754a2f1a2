/** The same promises on the other way that a device's stream takes. */
import { useDeviceStreams } from "../../support/server.ts";

useDeviceStreams("connect");
await import("./slow-reader.test.ts");
