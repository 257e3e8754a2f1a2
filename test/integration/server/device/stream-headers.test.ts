/** The answer's headers of a device's stream, as a bare HTTP/2 client receives them. */
import { once } from "node:events";
import { connect, type IncomingHttpHeaders, sensitiveHeaders } from "node:http2";
import { expect, onTestFinished, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import { enrolDevice } from "../../../support/device.ts";
import { useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

test("headers that come once on a connection take no room in the table of its compression", async () => {
  const { clients, url } = replicas.here;
  const { token } = await enrolDevice(clients);
  const session = connect(url);
  session.on("error", () => {});
  onTestFinished(() => session.destroy());
  const stream = session.request({
    ":method": "POST",
    ":path": "/pinion.v1.DeviceService/Connect",
    "content-type": "application/grpc",
    authorization: `Bearer ${token}`,
  });
  stream.on("error", () => {});
  const [headers] = (await once(stream, "response")) as [IncomingHttpHeaders & Record<symbol, string[]>];
  expect(headers[":status"]).toBe(200);
  expect(Date.parse(headers.date ?? "")).toBeGreaterThan(0);
  const never = headers[sensitiveHeaders as unknown as symbol] ?? [];
  const names = Object.keys(headers).filter((name) => name !== ":status");
  expect(names.sort()).toEqual(["content-type", "date", "grpc-accept-encoding", "x-request-id"]);
  expect([...never].sort()).toEqual(names);
});
