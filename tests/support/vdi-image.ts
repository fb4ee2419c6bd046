/** VDIs with UUIDs that are easy to tell, made without the driver. */
import { makeVdi, VDI_FIELDS, type VdiField, type VdiPlan } from './vdi-bytes.ts';

const BLOCK = 4096;

/** UUIDs of an image, each sixteen times one byte. */
export interface Uuids {
  readonly uuid: number;
  /** Of the last modification. Default: the UUID and 0x40. */
  readonly state?: number;
  /** Of the parent. Default: none. */
  readonly link?: number;
  /** Of the parent's last modification when the image was made. Default: the link and 0x40. */
  readonly linkState?: number;
}

/** An image as bytes, of type 4 if it has a link. */
export function vdiImage(
  plan: Partial<VdiPlan> & { readonly map: readonly number[] },
  { uuid, state = uuid + 0x40, link = 0, linkState = link === 0 ? 0 : link + 0x40 }: Uuids,
): Uint8Array {
  const type = plan.type ?? (link === 0 ? 1 : 4);
  const bytes = makeVdi({ diskSize: plan.map.length * BLOCK, blockSize: BLOCK, ...plan, type });
  const put = (field: VdiField, value: number) => bytes.fill(value, VDI_FIELDS[field], VDI_FIELDS[field] + 16);
  put('uuid', uuid);
  put('modificationUuid', state);
  put('linkUuid', link);
  put('parentUuid', linkState);
  return bytes;
}
