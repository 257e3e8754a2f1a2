/** Fields that this version does not know cost no memory beyond their message. */
import { createContextValues } from "@connectrpc/connect";
import { expect, onTestFinished, test } from "vitest";
import { FleetService, type ListDevicesRequest } from "#gen/pinion/v1/fleet_pb.js";
import { createRpcHandler } from "../../../../src/server/http/port/adapter.ts";
import { openPort } from "../../../../src/server/http/port/port.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";

test("unknown fields of a message are read over, and the known ones are read", async () => {
  const received: ListDevicesRequest[] = [];
  const handler = createRpcHandler({
    contextValues: () => createContextValues(),
    routes: (router) =>
      router.service(FleetService, {
        listDevices(request) {
          received.push(request);
          return {};
        },
      }),
  });
  const log = createLogger({ level: "silent", name: "test" });
  const port = await openPort({ host: "127.0.0.1", port: 0, log, handler });
  onTestFinished(() => port.close(0));
  // Field 31, a varint of 1, a hundred thousand times; then page_size 7.
  const unknown = Buffer.alloc(300_000, Buffer.from([0xf8, 0x01, 0x01]));
  const response = await fetch(`${port.url}/${FleetService.typeName}/ListDevices`, {
    method: "POST",
    headers: { "content-type": "application/proto" },
    body: Buffer.concat([
      unknown,
      Buffer.from([FleetService.method.listDevices.input.field.pageSize.number << 3, 7]),
    ]),
  });
  expect(response.status).toBe(200);
  expect(received).toMatchObject([{ pageSize: 7 }]);
  expect(received[0]?.$unknown).toBeUndefined();
});
