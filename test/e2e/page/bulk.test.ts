/**
 * Many runs at once from the page: narrowed by the address, counted first, then done with progress.
 */
import { describe, expect, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { browserPath, findBarriers, patient, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { enrolDevice } from "../../support/device.ts";
import { startTestReplica } from "../../support/server.ts";
import { startWork } from "../../support/work.ts";

describe.skipIf(!browserPath)("many runs at once", () => {
  const database = useDatabase();
  const browser = useBrowser();

  test("what the address narrows is counted, cancelled after a yes, and nothing else", async () => {
    const replica = await startTestReplica(database.url, patient);
    const { clients } = replica;
    const [gpu, other] = [await enrolDevice(clients, "gpu-1"), await enrolDevice(clients, "other")];
    await clients.fleet.labelDevice({ deviceId: gpu.deviceId, add: ["gpu"] });
    const wanted = [await startWork(clients, gpu), await startWork(clients, gpu)];
    const spared = await startWork(clients, other);

    const page = await browser.signIn(replica, "#/runs?label=gpu&since=24h", { width: 1280 });
    await page.locator(`[data-key="${wanted[0]!.id}"]`).waitFor();
    expect(await page.locator(`[data-key="${spared.id}"]`).count()).toBe(0);
    await page.getByRole("button", { name: "Cancel all…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByText("runs are meant").waitFor();
    expect(await dialog.locator(".bulk-count").textContent()).toBe("2");
    expect(await findBarriers(page)).toEqual([]);

    // A closed dialog has done nothing.
    await dialog.getByRole("button", { name: "Leave them" }).click();
    expect((await clients.runs.getRun({ runId: wanted[0]!.id })).run!.status).toBe(RunStatus.PENDING);

    await page.getByRole("button", { name: "Cancel all…" }).click();
    await dialog.getByRole("button", { name: "Cancel 2" }).click();
    await dialog.getByText("2 of 2 done, finished").waitFor();
    await dialog.getByRole("button", { name: "Close", exact: true }).last().click();
    for (const { id } of wanted)
      await page.locator(`[data-key="${id}"] .status`).getByText("cancelled").waitFor();
    expect((await clients.runs.getRun({ runId: spared.id })).run!.status).toBe(RunStatus.PENDING);

    // The filters are in the address.
    await page.getByLabel("Since").selectOption("1h");
    await expect.poll(() => page.url()).toContain("#/runs?label=gpu&since=1h");
    await page.reload();
    expect(await page.getByLabel("Since").inputValue()).toBe("1h");
  });
});
