/** The client, a package of its own, has the only copy. */
export { editDistance } from "@pinion/client/edit-distance";
