/**
 * Hooks with their deliveries, and the chain, hooks and destinations of a watcher, in a real
 * browser.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { NotifyWhen } from "#gen/pinion/v1/destination_pb.js";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import { browserPath, findBarriers, patient, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { openTestReplica, type TestReplica } from "../../support/server.ts";

describe.skipIf(!browserPath)("what comes in and goes out", () => {
  const database = useDatabase({ per: "file" });
  const browser = useBrowser();
  let replica: TestReplica;

  beforeAll(async () => {
    replica = await openTestReplica(database.url, {
      ...patient,
      PINION_DESTINATION_NETWORKS: "127.0.0.1",
      PINION_SECRET_KEYS: `k1:${Buffer.alloc(32, 7).toString("base64")}`,
    });
  });
  afterAll(() => replica.stop());

  test("a watcher's page shows its chain, hooks and destinations; a hook's deliveries are read and replayed", async () => {
    const { watchers, hooks, destinations } = replica.clients;
    await destinations.createDestination({
      slug: "ops",
      spec: { name: "Ops", kind: { case: "webhook", value: { url: "http://127.0.0.1:9/" } } },
    });
    const notify = [{ to: "ops", when: NotifyWhen.FAILURE }];
    await watchers.createWatcher({ slug: "review", spec: { name: "Review", prompt: "look", notify } });
    await watchers.createWatcher({
      slug: "triage",
      spec: { name: "Triage", prompt: "sort", after: ["review"] },
    });
    const { url, secret } = await hooks.createHook({
      slug: "pushes",
      spec: { watcherId: "review", kind: HookKind.BEARER, filter: 'input.ref == "main"' },
    });
    const post = (body: object) =>
      fetch(`${replica.url}${url}`, {
        ...{ method: "POST", body: JSON.stringify(body), headers: { authorization: `Bearer ${secret}` } },
      });
    await post({ ref: "main", by: { name: "ann" } });
    await post({ ref: "else" });

    const page = await browser.signIn(replica, "#/watchers/review");
    const flow = page.getByRole("region", { name: "In and out" });
    await flow.getByRole("link", { name: "triage" }).waitFor();
    await expect.poll(() => flow.textContent()).toMatch(/tells.*ops of failures/);
    await flow.getByRole("link", { name: "pushes" }).click();
    const deliveries = page.getByRole("region", { name: "Deliveries" });
    await deliveries.getByText("started").waitFor();
    await deliveries.getByText("the filter is false").waitFor();
    await deliveries.getByRole("button", { name: "Body" }).last().click();
    await deliveries.getByText("ann").waitFor();
    await hooks.updateHook({ hookId: "pushes", spec: {}, updateMask: { paths: ["filter"] } });
    await deliveries
      .getByRole("button", { name: /^Replay/ })
      .first()
      .click();
    await deliveries.getByText("(replay)").waitFor();
    expect((await hooks.listHookDeliveries({ hookId: "pushes" })).deliveries).toHaveLength(3);
    expect(await findBarriers(page)).toEqual([]);

    await page.locator("a.back").click();
    await page.getByRole("region", { name: "Hooks" }).getByRole("link", { name: "pushes" }).waitFor();
    await page.goto(`${page.url().split("#")[0]}#/watchers/triage`);
    await expect
      .poll(() => page.getByRole("region", { name: "In and out" }).textContent())
      .toMatch(/starts afterreview when it completed/);
  });
});
