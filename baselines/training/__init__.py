"""The methods that train weights: TRL trains, PEFT adapts, bitsandbytes quantizes, datasets feeds."""
