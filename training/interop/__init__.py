"""Plans in the words of three other trainers, both ways: diffusion-pipe, ai-toolkit and musubi-tuner."""
