import { HookService } from "#gen/pinion/v1/hook_pb.js";
import { clientOf } from "./api.ts";

export const hooks = clientOf(HookService);
