import type { Qcow2Image } from './image.ts';
export async function repairDirty(_image: Qcow2Image): Promise<void> {}
